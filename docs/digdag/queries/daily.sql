-- Rows that were received on the day before the session's date, whenever the events happened.
select td_path, count(*) as views
from ${sluice.table}
where received_at >= TD_TIME_PARSE('${last_session_date}', '${sluice.timezone}') * 1000
  and received_at < TD_TIME_PARSE('${session_date}', '${sluice.timezone}') * 1000
group by td_path
