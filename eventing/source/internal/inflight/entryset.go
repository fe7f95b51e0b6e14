package inflight

import "iter"

// entryPageSize is the number of sequences in one page of an [entrySet].
const entryPageSize = 32

// entrySet is a set of entries by their sequences, which are close together. A map of
// entries would be several times slower, because each access to a large map is far from
// the one before. The zero value is empty.
type entrySet struct {
	pages map[uint64]*entryPage
	count int
}

type entryPage struct {
	entries [entryPageSize]*Entry
	count   int
}

func (s *entrySet) len() int { return s.count }

// get returns the entry of a sequence; nil if there is none.
func (s *entrySet) get(sequence uint64) *Entry {
	if page := s.pages[sequence/entryPageSize]; page != nil {
		return page.entries[sequence%entryPageSize]
	}
	return nil
}

// add adds e, whose sequence must have no entry yet.
func (s *entrySet) add(e *Entry) {
	number := e.sequence / entryPageSize
	page := s.pages[number]
	if page == nil {
		if s.pages == nil {
			s.pages = map[uint64]*entryPage{}
		}
		page = &entryPage{}
		s.pages[number] = page
	}
	page.entries[e.sequence%entryPageSize] = e
	page.count++
	s.count++
}

// remove removes the entry of a sequence, if there is one.
func (s *entrySet) remove(sequence uint64) {
	number := sequence / entryPageSize
	page := s.pages[number]
	if page == nil || page.entries[sequence%entryPageSize] == nil {
		return
	}
	page.entries[sequence%entryPageSize] = nil
	s.count--
	if page.count--; page.count == 0 {
		delete(s.pages, number)
	}
}

// all returns the entries, unordered. They may be removed meanwhile.
func (s *entrySet) all() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for _, page := range s.pages {
			for _, e := range &page.entries {
				if e != nil && !yield(e) {
					return
				}
			}
		}
	}
}
