"""The MultiSPA data engine: from posed scenes to questions with exact truths; knows no file layout of a source."""
