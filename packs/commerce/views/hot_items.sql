-- Which five items were looked at most in the last hour, every five minutes?
--
-- Grain:       window and rank; ties go to the smaller item_id.
-- Event time:  user_behavior.ts, hopping windows of 1 hour every 5 minutes.
-- Lateness:    the table's (5 seconds). One final answer per window, when the watermark passes its end.
-- Size:        5 rows per window, 1,440 a day.
CREATE MATERIALIZED VIEW hot_items AS
SELECT window_start, window_end, rank, item_id, cnt
FROM (
  SELECT window_start, window_end, item_id, cnt,
         ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY cnt DESC, item_id) AS rank
  FROM (
    SELECT window_start, window_end, item_id, COUNT(*) AS cnt
    FROM HOP(user_behavior, ts, INTERVAL '5 minutes', INTERVAL '1 hour')
    WHERE behavior = 'pv'
    GROUP BY window_start, window_end, item_id
  ) AS counts
) AS ranked
WHERE rank <= 5
EMIT ON WINDOW CLOSE;
