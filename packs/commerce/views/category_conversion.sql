-- Of those who look, how many put into the cart and buy, by category?
--
-- Grain:       category, over all rows so far.
-- Event time:  none; every row counts, late ones too.
-- Size:        one row per category. conversion_ratio is buy / pv, NULL where nobody looked.
CREATE MATERIALIZED VIEW category_conversion AS
SELECT category_id,
       COUNT(*) FILTER (WHERE behavior = 'pv') AS pv,
       COUNT(*) FILTER (WHERE behavior = 'cart') AS cart,
       COUNT(*) FILTER (WHERE behavior = 'buy') AS buy,
       CAST(COUNT(*) FILTER (WHERE behavior = 'buy') AS DOUBLE PRECISION)
         / NULLIF(COUNT(*) FILTER (WHERE behavior = 'pv'), 0) AS conversion_ratio
FROM user_behavior
GROUP BY category_id;
