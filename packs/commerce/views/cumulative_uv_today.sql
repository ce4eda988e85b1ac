-- How many different visitors so far today, in steps of ten minutes?
--
-- Grain:       step of ten minutes within the day (UTC).
-- Event time:  user_behavior.ts, cumulating windows of 10 minutes up to 1 day.
-- Lateness:    the table's (5 seconds). One final answer per step, when the watermark passes its end.
-- Size:        144 rows a day.
CREATE MATERIALIZED VIEW cumulative_uv_today AS
SELECT window_start, window_end, COUNT(DISTINCT user_id) AS uv
FROM CUMULATE(user_behavior, ts, INTERVAL '10 minutes', INTERVAL '1 day')
WHERE behavior = 'pv'
GROUP BY window_start, window_end
EMIT ON WINDOW CLOSE;
