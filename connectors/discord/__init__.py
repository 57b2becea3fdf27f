"""Messages, threads and posts of Discord servers, read as a bot."""
