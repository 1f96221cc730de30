"""What may go wrong: damaged files, kills, full disks, odd inputs, another tiling, another version."""
