-- Which orders were not paid within 15 minutes?
CREATE MATERIALIZED VIEW unpaid_orders AS
SELECT order_id, created_at
FROM order_events MATCH_RECOGNIZE (
  PARTITION BY order_id
  ORDER BY ts
  MEASURES created.ts AS created_at
  PATTERN (created NOT paid) WITHIN INTERVAL '15 minutes'
  DEFINE created AS event = 'create', paid AS event = 'pay');
