-- How many orders and how much GMV, minute by minute, and what became of them?
--
-- Grain:       minute in which the order was placed.
-- Event time:  orders.created_at, tumbling windows of 1 minute. The table has no watermark: a later
--              payment or cancellation corrects the minute of its order.
-- Money:       gmv is the amount of all orders placed, whatever became of them.
-- Size:        1,440 rows a day.
CREATE MATERIALIZED VIEW orders_per_minute AS
SELECT window_start,
       COUNT(*) AS orders,
       SUM(units) AS units,
       SUM(amount) AS gmv,
       COUNT(*) FILTER (WHERE status IN ('paid', 'shipped', 'refunded')) AS paid_orders,
       COUNT(*) FILTER (WHERE status = 'cancelled') AS cancelled_orders
FROM TUMBLE(orders, created_at, INTERVAL '1 minute')
GROUP BY window_start, window_end;
