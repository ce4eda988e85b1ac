-- Clicks on advertisements.
CREATE TABLE ad_clicks (
  user_id BIGINT, ad_id BIGINT, province TEXT, city TEXT, ts TIMESTAMPTZ NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '1 minute'
) APPEND ONLY;
