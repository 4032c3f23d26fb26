"""Where market data comes from: brokers and exchanges behind one protocol. Blind to storage and to Prefect."""
