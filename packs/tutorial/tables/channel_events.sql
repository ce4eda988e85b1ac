-- What people who came through an app store or an advertisement do: click, download, install, uninstall.
CREATE TABLE channel_events (
  user_id BIGINT, behavior TEXT, channel TEXT, ts TIMESTAMPTZ NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) APPEND ONLY;
