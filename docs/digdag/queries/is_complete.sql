-- True once all rows that were received before the session's date are in the table or set aside. '*' stands for all tables.
-- To wait for set-aside rows as well, add "and set_aside = 0".
select count(*) > 0
from sluice_watermarks
where TD_TIME_RANGE(time, '${session_date}', null, '${sluice.timezone}')
  and table_name in ('*', '${sluice.table}')
  and complete_before >= TD_TIME_PARSE('${session_date}', '${sluice.timezone}') * 1000
