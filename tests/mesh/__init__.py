"""The mesh as a whole: services with proxies on several agents, real processes all."""
