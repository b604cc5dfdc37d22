package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

const pageSize = 4096

const schema = "CREATE TABLE data_source (id INTEGER PRIMARY KEY, name TEXT, type TEXT, url TEXT)"

// writeDatabase leaves a small SQLite database of the data sources: two pages, written beside the old file and
// renamed over it. Source: "Database File Format" of SQLite.
func writeDatabase(path string, sources []dataSource) error {
	var rows [][]byte
	for _, source := range sources {
		// The row id is the key, so the column holds NULL.
		rows = append(rows, cell(source.ID, nil, source.Name, source.Type, source.URL))
	}
	tables, err := leaf(rows, 0)
	if err != nil {
		return err
	}
	first, err := leaf([][]byte{cell(1, "table", "data_source", "data_source", 2, schema)}, 100)
	if err != nil {
		return err
	}
	copy(first, header())
	beside := path + ".new"
	if err := os.WriteFile(beside, append(first, tables...), 0o640); err != nil {
		return err
	}
	return os.Rename(beside, path)
}

func header() []byte {
	var b bytes.Buffer
	b.WriteString("SQLite format 3\x00")
	b.Write([]byte{pageSize >> 8, pageSize & 0xff, 1, 1, 0, 64, 32, 32})
	for _, number := range []uint32{1, 2, 0, 0, 1, 4, 0, 0, 1, 0, 0} {
		_ = binary.Write(&b, binary.BigEndian, number)
	}
	b.Write(make([]byte, 24))
	for _, number := range []uint32{1, 3040000} {
		_ = binary.Write(&b, binary.BigEndian, number)
	}
	return b.Bytes()
}

// leaf is a table's leaf page; start is where the page's own header begins (the first page has the file's before it).
func leaf(cells [][]byte, start int) ([]byte, error) {
	page := make([]byte, pageSize)
	end := pageSize
	for i, one := range cells {
		end -= len(one)
		if end < start+8+2*len(cells) {
			return nil, fmt.Errorf("too many data sources for the database's page")
		}
		copy(page[end:], one)
		binary.BigEndian.PutUint16(page[start+8+2*i:], uint16(end))
	}
	page[start] = 0x0d
	binary.BigEndian.PutUint16(page[start+3:], uint16(len(cells)))
	binary.BigEndian.PutUint16(page[start+5:], uint16(end))
	return page, nil
}

// cell is a row with its id; a value is nil, a small number or a text.
func cell(id int, values ...any) []byte {
	var types, body []byte
	for _, value := range values {
		switch v := value.(type) {
		case string:
			types = append(types, varint(uint64(13+2*len(v)))...)
			body = append(body, v...)
		case int:
			types = append(types, 1)
			body = append(body, byte(v))
		default:
			types = append(types, 0)
		}
	}
	// The header's length counts itself; it stays below 128 here, one byte.
	record := append(append(varint(uint64(len(types)+1)), types...), body...)
	return append(append(varint(uint64(len(record))), varint(uint64(id))...), record...)
}

func varint(value uint64) []byte {
	out := []byte{byte(value & 0x7f)}
	for value >>= 7; value > 0; value >>= 7 {
		out = append([]byte{byte(value&0x7f) | 0x80}, out...)
	}
	return out
}
