"""Keep samples and turn them into figures: the model, the file, statistics, summaries."""
