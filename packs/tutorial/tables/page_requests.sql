-- Lines of a web server's access log. Within a minute they are in any order.
CREATE TABLE page_requests (
  ip TEXT, ts TIMESTAMPTZ NOT NULL, method TEXT, url TEXT,
  WATERMARK FOR ts AS ts - INTERVAL '1 minute'
) APPEND ONLY;
