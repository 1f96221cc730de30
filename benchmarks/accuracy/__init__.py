"""How much is found, how much is wrong, how far counts are off: shipped models, trainings, other methods."""
