"""The MultiSPA benchmark: judges answers by the published rules; knows neither how rows are made nor training."""
