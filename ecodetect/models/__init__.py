"""The shipped models, and which model a user means."""
