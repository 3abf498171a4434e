package translate

// RememberAll keeps a memo of every virtual host, however small, whatever changes.
func (t *Translator) RememberAll() { t.memos = memoRule{} }
