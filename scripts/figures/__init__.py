"""The figures of scripts that would be too long with them: an Album for each, under the script's name."""
