// Verifies checkpoints, inclusion and consistency proofs with the libraries of Go's checksum database.
//
// Standard input: {"key": vkey, "older": note, "newer": note, "consistency": [hash], "entries": [{"index", "bytes",
// "inclusion": [hash]}]}, bytes and hashes in base64. Exit code 1 and a line on standard error where something fails.
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type entry struct {
	Index     int64
	Bytes     []byte
	Inclusion [][]byte
}

type input struct {
	Key, Older, Newer string
	Consistency       [][]byte
	Entries           []entry
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return err
	}
	verifier, err := note.NewVerifier(in.Key)
	if err != nil {
		return err
	}
	olderSize, olderRoot, err := open(in.Older, verifier)
	if err != nil {
		return fmt.Errorf("older checkpoint: %w", err)
	}
	size, root, err := open(in.Newer, verifier)
	if err != nil {
		return fmt.Errorf("newer checkpoint: %w", err)
	}
	consistency, err := hashes(in.Consistency)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(tlog.TreeProof(consistency), size, root, olderSize, olderRoot); err != nil {
		return fmt.Errorf("consistency: %w", err)
	}
	for _, it := range in.Entries {
		inclusion, err := hashes(it.Inclusion)
		if err != nil {
			return err
		}
		leaf := tlog.RecordHash(it.Bytes)
		if err := tlog.CheckRecord(tlog.RecordProof(inclusion), size, root, it.Index, leaf); err != nil {
			return fmt.Errorf("inclusion of entry %d: %w", it.Index, err)
		}
	}
	fmt.Printf("%d entries are in the tree of %d, which extends that of %d\n", len(in.Entries), size, olderSize)
	return nil
}

// open verifies a checkpoint's signature, and reads its size and root.
func open(text string, verifier note.Verifier) (int64, tlog.Hash, error) {
	opened, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return 0, tlog.Hash{}, fmt.Errorf("not a checkpoint of %q", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	octets, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	root, err := hash(octets)
	return size, root, err
}

func hashes(all [][]byte) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, octets := range all {
		one, err := hash(octets)
		if err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, nil
}

func hash(octets []byte) (tlog.Hash, error) {
	var found tlog.Hash
	if copy(found[:], octets) != len(found) || len(octets) != len(found) {
		return found, fmt.Errorf("a hash of %d bytes", len(octets))
	}
	return found, nil
}
