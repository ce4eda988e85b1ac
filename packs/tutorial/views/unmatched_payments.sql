-- Which payments have no receipt, and which receipts no payment? Half an hour is waited for the other side.
CREATE MATERIALIZED VIEW unmatched_payments AS
SELECT tx_id, side, seen_at
FROM (
  SELECT tx_id, 'payment' AS side, ts FROM order_events WHERE event = 'pay'
  UNION ALL
  SELECT tx_id, 'receipt', ts FROM receipts
) AS both_sides MATCH_RECOGNIZE (
  PARTITION BY tx_id
  ORDER BY ts
  MEASURES one.side AS side, one.ts AS seen_at, other.ts AS answered_at
  PATTERN (one (other | NOT other)) WITHIN INTERVAL '30 minutes'
  DEFINE other AS side <> one.side)
WHERE answered_at IS NULL;
