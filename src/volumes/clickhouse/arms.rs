//! What two models say that are compared, and when models were trained, in ClickHouse.

use super::super::question::ArmCount;
use super::{ClickHouseStore, StoreError};
use crate::record::Kind;

impl ClickHouseStore {
    pub(in crate::volumes) async fn arm_counts(&self, from: i64, to: i64) -> Result<Vec<ArmCount>, StoreError> {
        // Aliases that a column has too would be taken for it.
        let statement = "
            SELECT kind_number AS kind, whose AS arm, of_model AS model, apart AS in_shadow,
                count() AS events, sum(sure) AS sum, sum(sure * sure) AS squares,
                countIf(apart = 1 AND by_model) AS compared, countIf(apart = 1 AND by_model AND same) AS agreed
            FROM (
                SELECT CAST(kind, 'Int8') AS kind_number, decided_by IN ('fast', 'cache') AS by_model,
                    arrayJoin(arrayConcat(
                        if(decided_by IN ('fast', 'cache'),
                            [(toString(arm), toString(model), 0, toFloat64(confidence), 1)], []),
                        arrayMap(said -> ('challenger', toString(said.1), 1, toFloat64(said.3),
                            toString(said.2) = toString(queue)), shadow))) AS said_by,
                    said_by.1 AS whose, said_by.2 AS of_model, toUInt8(said_by.3) AS apart, said_by.4 AS sure,
                    said_by.5 AS same
                FROM queue_events FINAL
                WHERE occurred_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
                  AND occurred_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC') AND arm != '')
            GROUP BY kind, arm, model, in_shadow ORDER BY kind, arm, model, in_shadow";
        let query = self.client.query(statement).param("from", from.max(0)).param("to", to.max(0));
        self.rows("reading arms", query).await
    }

    pub(in crate::volumes) async fn last_training(&self, kind: Kind) -> Result<Option<u32>, StoreError> {
        let statement = "SELECT toUnixTimestamp(max(slot)) FROM scheduled_trainings WHERE kind = {kind:String}";
        let query = self.client.query(statement).param("kind", kind.as_str());
        let newest = self.rows::<u32>("reading scheduled_trainings", query).await?;
        // `max` of nothing is zero.
        Ok(newest.into_iter().next().filter(|slot| *slot > 0))
    }

    pub(in crate::volumes) async fn training_done(&self, kind: Kind, slot: u32) -> Result<(), StoreError> {
        let statement = "INSERT INTO scheduled_trainings (kind, slot, done_at)
             SELECT {kind:String}, toDateTime({slot:UInt32}, 'UTC'), now64(3)";
        let query = self.client.query(statement).param("kind", kind.as_str()).param("slot", slot);
        self.within("writing scheduled_trainings", query.execute()).await
    }
}
