-- Who clicked on the same advertisement more than 100 times in a day? Each user and advertisement once a day.
CREATE MATERIALIZED VIEW ad_click_blacklist AS
SELECT window_start AS day, user_id, ad_id
FROM TUMBLE(ad_clicks, ts, INTERVAL '1 day')
GROUP BY window_start, window_end, user_id, ad_id
HAVING COUNT(*) > 100;
