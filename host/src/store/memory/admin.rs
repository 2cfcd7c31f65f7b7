//! Pause rules and the audit trail.

use super::*;

impl Tables {
    pub(super) fn write_audit(&mut self, entry: AuditEntry) {
        let number = self.audit.len() as u64 + 1;
        let before = self.audit.last().map_or_else(AuditHash::beginning, |last| last.hash.clone());
        let hash = before.next(number, &entry);
        self.audit.push(AuditView { number, entry, hash });
    }

    pub(super) fn add_pause_rule(&mut self, rule: PauseRule, audit: AuditEntry) -> Result<(), StoreError> {
        if self.pause_rules.iter().any(|there| there.id == rule.id) {
            return Err(StoreError::Corrupt(format!("there is a pause rule {:?} already", rule.id.as_str())));
        }
        self.pause_rules.push(rule);
        self.write_audit(audit);
        Ok(())
    }

    pub(super) fn delete_pause_rules(
        &mut self,
        ids: &[PauseRuleId],
        by: Option<&str>,
        now: Timestamp,
        audit: Vec<AuditEntry>,
    ) -> Result<Vec<PauseRuleId>, StoreError> {
        trail::one_for_each(ids.len(), audit.len())?;
        let mut deleted = Vec::new();
        for (id, entry) in ids.iter().zip(audit) {
            let mut rules = self.pause_rules.iter_mut();
            let Some(rule) = rules.find(|rule| rule.id == *id && rule.deleted_at.is_none()) else { continue };
            rule.deleted_at = Some(now);
            rule.deleted_by = by.map(str::to_owned);
            deleted.push(id.clone());
            self.write_audit(entry);
        }
        Ok(deleted)
    }

    pub(super) fn audit_page(&self, filter: &AuditFilter, limit: u32, offset: u64) -> (Vec<AuditView>, u64) {
        let found: Vec<&AuditView> =
            self.audit.iter().rev().filter(|view| filter.matches(&view.entry)).collect();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let page = found.iter().skip(offset).take(limit as usize).map(|view| (*view).clone()).collect();
        (page, found.len() as u64)
    }

    pub(super) fn audit_after(&self, after: u64, limit: u32) -> Vec<AuditView> {
        self.audit.iter().filter(|view| view.number > after).take(limit as usize).cloned().collect()
    }
}
