"""Verifies a Daypass log offline, or some of one store that follow each other, by the key that signs for all. Python 3.9 alone.
usage: verify.py ENTRIES CHECKPOINT [ENTRIES CHECKPOINT ...] LOG-KEY     exit code 0: sound, 4: something found, 1: not usable
"""
import base64, functools, hashlib, json, pathlib, re, sys, uuid
STATE = "log.opened bundle.activated key.changed suspension.set suspension.lifted approval.decided review.recorded".split()
# What a kind cannot do without: strings, numbers (n; w of 32 bits), integers (i), digests (d), lists (l), objects (o), booleans (b).
TYPES, BEYOND = {"": str, "n": int, "w": int, "i": int, "d": str, "l": list, "o": dict, "b": bool}, {"n": 2**53, "w": 2**32}
MADE = " decision.bundle:d decision.state:n proof.kind proof.issuer proof.at:n proof.clause:w proof.subject proof.digest:d"
MADE += " proof.issued_ms:i proof.exp_ms:i proof.use proof.actor"
FIELDS = {"bundle.activated": "digest:d", "alarm": "code state",
    "key.changed": "key use alg state origin public:d publish_from_ms:i sign_from_ms:i sign_until_ms:i publish_until_ms:i",
    "broker.heartbeat": "since_ms:i counts.issued:n counts.refused:n counts.unavailable:n clock.synchronised:b up_ms:n",
    "broker.started": "version mode store durability schema:w clock.synchronised:b reads:o", "credential.ended": "how ended:l",
    "credential.refused": "reason clause count:n first_ms:i" + MADE, "access.observed": "target what at_ms:i method count:n",
    "statement.signed": "type key digest:d from_ms:i until_ms:i", "suspension.set": "selector:o reason revoked:n live:n",
    "registry.changed": "type name change bundle:d", "checkpoint.anchored": "where size:n root:d", "broker.stopped": "reason",
    "suspension.lifted": "suspension:n reason", "log.opened": "origin key reason", "log.closed": "successor live:n",
    "credential.issued": "identity.name identity.at:n task.name task.at:n target.name target.at:n asked:o granted.ttl_s:w"
    " credential.type credential.profile credential.key credential.alg credential.subject credential.iat_ms:i"
    " credential.nbf_ms:i credential.exp_ms:i credential.until_ms:i credential.tbs:d credential.reach" + MADE}
DIGEST, P, L = re.compile("sha256:[0-9a-f]{64}"), 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

def require(holds, text):
    if not holds:
        raise ValueError(text)

def add(p, q):
    """Ed25519 (RFC 8032, section 5.1) in affine coordinates: slow, short, and only ever used to verify."""
    (x, y), (u, v), t = p, q, D * p[0] * p[1] * q[0] * q[1]
    return (x * v + u * y) * pow(1 + t, -1, P) % P, (y * v + x * u) * pow(1 - t, -1, P) % P

def times(n, p):
    half = times(n >> 1, add(p, p)) if n > 1 else (0, 1)
    return add(half, p) if n & 1 else half

def point(octets):
    sign, y = octets[31] >> 7, int.from_bytes(octets, "little") & (2**255 - 1)
    xx = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(xx, (P + 3) // 8, P)
    x = x if x * x % P == xx else x * pow(2, (P - 1) // 4, P) % P
    require(y < P and x * x % P == xx and (x or not sign), "a signature or a key is no point of the curve")
    return P - x if x & 1 != sign else x, y

def signs(key, signature, text):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(r + key + text).digest(), "little") % L
    return len(signature) == 64 and s < L and times(s, point(b"\x58" + b"\x66" * 31)) == add(point(r), times(h, point(key)))

def opened(note, vkey, renamed):
    """Origin, size, root of a checkpoint (C2SP tlog-checkpoint, signed-note) by `vkey`, or, `renamed`, its key's other names."""
    name, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key, validate=True)
    id_of = lambda name: hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8]
    require(id_of(name) == key_id and len(key) == 33 and key[0] == 1, "the log key is not for Ed25519, or has another's id")
    form = "((.+)\n(0|[1-9][0-9]*)\n([A-Za-z0-9+/]{43}=)\n(?:.+\n)*)\n((?:— [^ +\n]+ [A-Za-z0-9+/]+=*\n)+)"
    read = re.fullmatch(form, note.decode())
    require(read and not re.search("[\0-\x09\x0b-\x1f]", read[0]), "the checkpoint is no note of an origin, a size and a root")
    text, origin, size, root, by = read.groups()
    name = origin if renamed and origin.rpartition("/")[0] == name.rpartition("/")[0] else name
    ours = [it for it in map(base64.b64decode, re.findall(f"— {re.escape(name)} (.+)\n", by)) if it[:4].hex() == id_of(name)]
    good = origin == name and len(ours) == 1 and signs(key[1:], ours[0][4:], text.encode())
    require(good, "the checkpoint is of another log, or not signed once by the log key")
    return origin, int(size), base64.b64decode(root)

def root_of(leaves):
    """RFC 6962, section 2.1: the left tree is the largest perfect one that is not the whole."""
    at = 1 << (len(leaves) - 1).bit_length() >> 1
    return hashlib.sha256(b"\1" + root_of(leaves[:at]) + root_of(leaves[at:])).digest() if len(leaves) > 1 else leaves[0]

def ordered(value):
    """As RFC 8785 orders it, for what an entry may hold: anything else is refused."""
    if type(value) is dict:
        return {name: ordered(it) for name, it in sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))}
    require(value is not None and value != "" and type(value) is not float, "holds a null, a float or an empty string")
    require(type(value) is not int or abs(value) < 2**53, "holds a number beyond 2^53 - 1")
    return [*map(ordered, value)] if type(value) is list else value

def read(octets):
    require(len(octets) <= 16 * 1024, "is longer than 16 KiB")
    entry = json.loads(octets.decode())
    written = json.dumps(ordered(entry), ensure_ascii=False, separators=(",", ":")).encode()
    require(type(entry) is dict and written == octets, "is not in canonical form")
    small = " declared.ttl_max_s:w" * ("ttl_max_s" in entry.get("declared", ()))
    more = small + " gap.from:n gap.note" * ("gap" in entry) + " asked.ttl_s:w" * ("ttl_s" in entry.get("asked", ()))
    more += " " + FIELDS.get(entry.get("kind"), "") + " identity.name identity.at:n" * ("identity" in entry)
    for field in ("v:w kind id time:i td broker" + " by.proof:d" * ("by" in entry) + " " + more * (entry.get("v") == 1)).split():
        path, _, type_ = field.partition(":")
        found = functools.reduce(lambda it, name: it.get(name) if type(it) is dict else None, path.split("."), entry)
        good = type(found) is TYPES[type_] and (type_ != "d" or DIGEST.fullmatch(found))
        require(good and (type_ not in BEYOND or 0 <= found < BEYOND[type_]), f"has no `{path}` as its kind has it")
    require(re.fullmatch("[0-9a-f-]{36}", entry["id"]) and uuid.UUID(entry["id"]).version == 7, "has no UUIDv7 as its id")
    return {**entry, "kind": entry["kind"] if entry["v"] == 1 else ""}  # a later version is kept, not judged

class Log:
    """What entries say of each other, from the first to the last: a method for each kind that must fit others."""
    def __init__(self, before):
        self.size, self.first, self.state, self.bundle, self.started, self.closed, self.end = 0, {}, None, None, None, None, None
        self.before, self.proofs, self.time = (before, before.proofs, before.time) if before else (None, {}, 0)
        self.older = {**before.older, before.first.get("origin"): before} if before else {}
        self.found, self.pending, self.released, self.void, self.clock = [], [], set(), set(), set()
        self.declared, self.keys, self.authors, self.alive, self.issued, self.open = {}, {}, {}, {}, {}, {}

    def add(self, octets):
        try:
            entry = read(octets)
            kind, time, self.first = entry["kind"], entry["time"], self.first or entry
            self.check(time >= self.time, "is earlier than an entry before it")
            self.check((self.size == 0) == (kind == "log.opened"), "opens the log a second time, or not at all")
            self.check(entry["td"] == self.first["td"] and not self.closed, "is of another trust domain, or after the log's end")
            # Before a bundle there is nobody, whoever is refused did not act, and declarations wait for their bundle.
            if self.bundle and kind not in ("registry.changed", "credential.refused") and not entry.get("bootstrap"):
                self.stands(entry, time)
            self.time, self.state = max(self.time, time), self.size if kind in STATE else self.state
            getattr(self, kind.replace(".", "_"), lambda _: None)(entry)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self.check(False, error if type(error) is ValueError else f"does not say what its kind says: {error!r}")
        self.size += 1

    def check(self, holds, text, index=None):
        self.found += [] if holds else [(self.size if index is None else index, str(text))]

    def stands(self, entry, time, index=None):
        who = [(type_, entry["by"][type_]) for type_ in ("operator", "identity") if type_ in entry.get("by", {})]
        ends = [(self.declared.get(it, (0, None))[1] or {"expires_ms": 0}).get("expires_ms", 2**53) for it in who]
        self.check("by" not in entry or (who and min(ends) > time), f"{who} was no operator or declared identity", index)

    def bundle_activated(self, entry):
        for at, it in self.pending if self.bundle and not entry.get("bootstrap") else []:
            self.stands(it, entry["time"], at)
        for at, it in self.pending:
            self.check(it["bundle"] == entry["digest"], "is declared by another bundle than the one that was activated", at)
            self.declared[it["type"], it["name"]] = (at, it.get("declared"))
        self.bundle, self.pending, proposer = entry["digest"], [], self.authors.get(entry.get("proposed"))
        require(not proposer or proposer not in map(self.authors.get, entry.get("decided", [])), "was decided by its proposer")

    def bundle_proposed(self, entry):
        self.authors[self.size] = (entry["by"].get("operator"), entry["by"].get("identity"))
    approval_decided = bundle_proposed
    key_changed = lambda self, entry: self.keys.update({entry["key"]: entry})
    registry_changed = lambda self, entry: self.pending.append((self.size, entry))

    def newest(self, entry, type_):
        at, declared = self.declared.get((type_, entry[type_]["name"]), (None, None))
        require(declared is not None and at == entry[type_]["at"], f"its {type_} is not declared, or anew by entry {at}")
        return declared

    def credential_issued(self, entry):
        made, asked, granted, time, proof = (entry[it] for it in ("credential", "asked", "granted", "time", "proof"))
        exp, key, under = made["exp_ms"], self.keys.get(made["key"]), entry["decision"]
        self.issued[self.size], self.open[self.size] = (time, exp, made["key"]), exp
        if proof["use"] == "once":
            first, end = self.proofs.get(proof["digest"], (None, -(2**53)))
            self.check(time > end + 120_000, f"its proof buys one credential, and had bought that of entry {first}")
            self.proofs[proof["digest"]] = (self.size, proof["exp_ms"])
        require(made["iat_ms"] <= time + 5000, "was issued after it was recorded")
        require((under["state"], under["bundle"]) == (self.state, self.bundle), "was not decided under the newest state")
        good = key and key["state"] not in ("compromised", "destroyed") and exp <= key["publish_until_ms"]
        require(good, "its key must not sign, or is published for less long")
        identity, task, target = (self.newest(entry, it) for it in ("identity", "task", "target"))
        require(max(exp, time) <= identity["expires_ms"], "outlives its identity")
        ceilings = [asked, task, {**granted, "audiences": [], **target}]
        if "supplier" in identity:
            ceilings.append(self.declared["supplier", identity["supplier"]][1])
            require(exp <= ceilings[3]["ends_ms"], "outlives the contract of its supplier")
        known = entry["task"]["name"] in identity["tasks"] and entry["target"]["name"] in task["targets"]
        require(known, "is for a task that its identity has not, or a target that its task has not")
        longest = [it["ttl_max_s"] for it in ceilings if "ttl_max_s" in it] + [asked.get("ttl_s", 2**53)]
        within = granted["ttl_s"] <= min(longest) and exp - made["iat_ms"] <= granted["ttl_s"] * 1000 + 1000
        require(within, "was granted for longer than asked and declared, or lives longer than granted")
        for what in ("audiences", "actions", "resources"):
            for it, ceiling in ((it, ceiling.get(what, [])) for it in granted.get(what, []) for ceiling in ceilings):
                below = what == "resources" and any(wide[-2:] == "/*" and it.startswith(wide[:-1]) for wide in ceiling)
                require(it in ceiling or below, f"was granted {what} beyond what was asked and declared")

    def log_closed(self, entry):
        self.closed = entry["successor"]
        require(entry["live"] == len(self.open), f"counts {entry['live']} that live, and there are {len(self.open)}")

    def credential_settled(self, entry):
        log = self.older.get(entry["log"]) if "log" in entry else self  # none: of a log that was not given
        for of, digest, ms in entry.get("released", []) if log else []:
            require(of in log.issued and DIGEST.fullmatch(digest), f"releases entry {of}, which issued nothing")
            require(of not in log.void and ms >= log.issued[of][0], f"releases entry {of}: void, or not recorded yet")
            log.released.add(of)
        for of, _ in entry.get("void", []) if log else []:
            good = of not in log.released and log.open.pop(of, None) is not None
            require(good, f"calls entry {of} void, which was released, issued nothing, or had ended")
            log.void.add(of)

    def credential_ended(self, entry):
        expired = {"expired": 30_000, "revoked": -(2**53)}[entry["how"]]
        log = self.older.get(entry["log"]) if "log" in entry else self
        for of in entry["ended"] if log else ():
            require(log.open.pop(of, None) is not None, f"ends entry {of}, which issued nothing or had ended")
            require(entry["time"] >= log.issued[of][1] + expired, f"calls entry {of} expired, which could be alive")
            require(entry.get("selector", {}).get("key", log.issued[of][2]) == log.issued[of][2], f"{of} has another key")
        self.unended(entry.get("through_ms", 0), f"is not named by entry {self.size}, which says that all until then are")

    def unended(self, before, why):
        self.found += [(of, why) for of, exp in self.open.items() if exp < before]

    def access_observed(self, entry):
        require(entry.get("what") == "unseen" or entry.get("credential") not in self.void, "saw in use what is void")

    def alarm(self, entry):
        if entry["code"] == "CLOCK":
            left = self.clock - {entry["raised"]} if "raised" in entry else set()
            self.clock = self.clock | {self.size} if entry["state"] == "raised" else left

    def broker_started(self, entry):
        broker, time = entry["of" if "of" in entry and entry["kind"] == "broker.stopped" else "broker"], entry["time"]
        self.check(max([0, *entry.get("reads", {}).values()]) < 2**32, "counts more reads than there can be")
        last, self.started = self.alive.get(broker, time), time if entry["kind"] == "broker.started" else self.started
        declared = "previous" in entry or broker != entry["broker"] or entry.get("since_ms", time) <= last + 5000
        self.check(declared or time - last <= 120_000, f"broker {broker} was silent since {last}")
        self.alive = {b: at for b, at in [*self.alive.items(), (broker, time)] if b != broker or entry["kind"] != "broker.stopped"}
    broker_heartbeat = broker_stopped = broker_started

    def close(self):
        for broker, last in self.alive.items():
            self.check(self.time - last <= 120_000, f"broker {broker} fell silent at {last}")
        if not self.clock and (self.started is None or self.time >= self.started + 60_000):
            [it.unended(self.time - 90_000, "is long past its end, and nothing ended it") for it in (*self.older.values(), self)]
            lost = [key for key, it in self.keys.items() if it["state"] == "compromised" and it["time"] < self.time - 90_000]
            self.found += [(of, "lives, and its key is compromised") for of in self.open if self.issued[of][2] in lost]

def verify(vkey, *files):
    """What is wrong with a log, or with logs that follow each other: for each the files of its entries and of its checkpoint."""
    logs = []
    for entries, checkpoint in zip(files[::2], files[1::2]):
        logs.append(Log(logs[-1] if logs else None))
        log, before, lines = logs[-1], logs[-1].before, pathlib.Path(entries).read_bytes().removesuffix(b"\n").split(b"\n")
        try:
            origin, size, root = opened(pathlib.Path(checkpoint).read_bytes(), vkey, len(files) > 2)
            leaves = [hashlib.sha256(b"\0" + line).digest() for line in lines[:size]]
            require(len(leaves) == size > 0 and root_of(leaves) == root, f"{size} entries do not lead to the checkpoint's root")
            list(map(log.add, lines))
            log.close()
            log.end = {"origin": origin, "size": size, "root": "sha256:" + root.hex()}
            require(log.first.get("origin") == origin, "the checkpoint is of another log")
            good = not before or (before.closed, before.end) == (origin, log.first.get("predecessor"))
            require(good, "the log before was not closed for this one, or is not the one that this one follows")
        except ValueError as error:
            log.check(False, error)
    return [f"{log.first.get('origin')}: entry {index}: {text}" for log in logs for index, text in log.found]

if __name__ == "__main__":
    findings = verify(sys.argv[-1], *sys.argv[1:-1]) if len(sys.argv) in range(4, 999, 2) else sys.exit(__doc__)
    sys.exit(print(*findings, f"{len(findings)} finding(s)", sep="\n") or 4 * bool(findings))
