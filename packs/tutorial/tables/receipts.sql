-- Money that arrived, as the payment channel reports it.
CREATE TABLE receipts (
  tx_id TEXT, channel TEXT, ts TIMESTAMPTZ NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '6 seconds'
) APPEND ONLY;
