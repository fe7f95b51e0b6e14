package inflight

// sequencePage is the number of sequences in one page of a [sequenceSet].
const sequencePage = 4096

// sequenceSet is a set of sequences that are close together: a bit for each, in pages.
// The nil set is empty and stays so.
type sequenceSet struct {
	pages map[uint64]*[sequencePage / 64]uint64
	floor uint64 // the first page that may exist
}

func (s *sequenceSet) has(sequence uint64) bool {
	if s == nil {
		return false
	}
	page := s.pages[sequence/sequencePage]
	return page != nil && page[sequence%sequencePage/64]&(1<<(sequence%64)) != 0
}

func (s *sequenceSet) add(sequence uint64) {
	if s == nil || sequence/sequencePage < s.floor {
		return
	}
	page := s.pages[sequence/sequencePage]
	if page == nil {
		if s.pages == nil {
			s.pages = map[uint64]*[sequencePage / 64]uint64{}
		}
		page = new([sequencePage / 64]uint64)
		s.pages[sequence/sequencePage] = page
	}
	page[sequence%sequencePage/64] |= 1 << (sequence % 64)
}

// dropBelow removes the pages below sequence.
func (s *sequenceSet) dropBelow(sequence uint64) {
	if s == nil || sequence/sequencePage <= s.floor {
		return
	}
	s.floor = sequence / sequencePage
	for number := range s.pages {
		if number < s.floor {
			delete(s.pages, number)
		}
	}
}
