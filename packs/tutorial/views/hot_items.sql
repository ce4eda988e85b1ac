-- Which five items were looked at most in the last hour, every five minutes? One final answer per window.
CREATE MATERIALIZED VIEW hot_items AS
SELECT window_end, rank, item_id, views
FROM (
  SELECT window_end, item_id, views,
         ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY views DESC, item_id) AS rank
  FROM (
    SELECT window_start, window_end, item_id, COUNT(*) AS views
    FROM HOP(user_behavior, ts, INTERVAL '5 minutes', INTERVAL '1 hour')
    WHERE behavior = 'pv'
    GROUP BY window_start, window_end, item_id
  ) AS counts
) AS ranked
WHERE rank <= 5
EMIT ON WINDOW CLOSE;
