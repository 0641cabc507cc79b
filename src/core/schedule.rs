//! stub
#[derive(Debug,PartialEq,thiserror::Error)] #[error("x")] pub struct CronError;
pub struct Cron; pub struct Missed{pub latest_ms:u64,pub skipped:u64}
impl Cron { pub fn parse(_e:&str,_t:&str)->Result<Cron,CronError>{Ok(Cron)} pub fn next_after(&self,_a:u64)->Option<u64>{None} pub fn missed(&self,d:u64,_n:u64)->Missed{Missed{latest_ms:d,skipped:0}} }
