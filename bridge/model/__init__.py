"""What the bridge knows and speaks of: frozen values and records, without any system behind them."""
