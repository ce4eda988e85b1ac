-- Which five pages were asked for most in the last ten minutes, every minute? Styles and scripts are no pages.
CREATE MATERIALIZED VIEW hot_pages AS
SELECT window_end, rank, url, requests
FROM (
  SELECT window_end, url, requests,
         ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY requests DESC, url) AS rank
  FROM (
    SELECT window_start, window_end, url, COUNT(*) AS requests
    FROM HOP(page_requests, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
    WHERE method = 'GET' AND url NOT LIKE '%.css' AND url NOT LIKE '%.js'
    GROUP BY window_start, window_end, url
  ) AS counts
) AS ranked
WHERE rank <= 5
EMIT ON WINDOW CLOSE;
