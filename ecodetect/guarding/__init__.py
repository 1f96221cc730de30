"""Files that could hang or crash a library are opened in a child process with limits on time and memory."""
