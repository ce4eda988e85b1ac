-- What did we sell each day?
--
-- Grain:       day (UTC) in which the order was placed.
-- Event time:  orders.created_at; no watermark, a later change of an order corrects its day.
-- Money:       gmv is the amount of all orders placed, exact to the cent.
-- Size:        one row a day.
CREATE MATERIALIZED VIEW sales_by_day AS
SELECT date_trunc('day', created_at) AS day,
       COUNT(*) AS orders,
       SUM(units) AS units,
       SUM(amount) AS gmv
FROM orders
GROUP BY date_trunc('day', created_at);
