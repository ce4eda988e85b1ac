-- How many page views, and by how many different visitors, in each hour?
--
-- Grain:       hour.
-- Event time:  user_behavior.ts, tumbling windows of 1 hour.
-- Lateness:    the table's (5 seconds).
-- Size:        24 rows a day; counts visitors exactly, so the open hour remembers who came.
CREATE MATERIALIZED VIEW pv_uv_per_hour AS
SELECT window_start, window_end, COUNT(*) AS pv, COUNT(DISTINCT user_id) AS uv
FROM TUMBLE(user_behavior, ts, INTERVAL '1 hour')
WHERE behavior = 'pv'
GROUP BY window_start, window_end;
