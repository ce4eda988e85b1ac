-- Which ten categories draw the most page views in each hour, and what do they sell?
--
-- Grain:       hour and rank; ties go to the smaller category_id.
-- Event time:  user_behavior.ts, tumbling windows of 1 hour.
-- Lateness:    the table's (5 seconds).
-- Size:        10 rows an hour.
CREATE MATERIALIZED VIEW category_ranking AS
SELECT window_start, window_end, rank, category_id, pv, buy
FROM (
  SELECT window_start, window_end, category_id, pv, buy,
         ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY pv DESC, category_id) AS rank
  FROM (
    SELECT window_start, window_end, category_id,
           COUNT(*) FILTER (WHERE behavior = 'pv') AS pv,
           COUNT(*) FILTER (WHERE behavior = 'buy') AS buy
    FROM TUMBLE(user_behavior, ts, INTERVAL '1 hour')
    GROUP BY window_start, window_end, category_id
  ) AS counts
) AS ranked
WHERE rank <= 10;
