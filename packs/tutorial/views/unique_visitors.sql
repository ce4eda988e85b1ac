-- By how many different visitors (UV)? Exact, not estimated.
CREATE MATERIALIZED VIEW unique_visitors AS
SELECT window_start, COUNT(DISTINCT user_id) AS uv
FROM TUMBLE(user_behavior, ts, INTERVAL '1 hour')
WHERE behavior = 'pv'
GROUP BY window_start, window_end;
