"""What the integration, adversity and leak tests share: real peers, the proxy process, raw clients, the census."""
