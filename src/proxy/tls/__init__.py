"""TLS in the control plane: keys and certificates, from their files to the data plane, and what handshakes came to."""
