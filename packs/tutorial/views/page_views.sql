-- How many items are looked at, hour by hour (PV)?
CREATE MATERIALIZED VIEW page_views AS
SELECT window_start, COUNT(*) AS pv
FROM TUMBLE(user_behavior, ts, INTERVAL '1 hour')
WHERE behavior = 'pv'
GROUP BY window_start, window_end;
