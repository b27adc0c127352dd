"""Web transports: the services on their paths, and how Twisted Web serves clients of the data plane."""
