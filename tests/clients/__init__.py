"""Programs that other people wrote, run as they are against an agent: client libraries, command lines, scrapers."""
