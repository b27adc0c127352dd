"""MQTT clients (3.1.1 and 5) on WAMP topics: each of them is, for the data plane, a WAMP client."""
