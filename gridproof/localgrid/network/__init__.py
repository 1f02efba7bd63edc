"""Sites behind firewalls and long links, made of network namespaces."""
