"""Verifies a Daypass log offline: its entries, a signed checkpoint, the log's public key. Python 3.9, nothing else.
usage: verify.py ENTRIES CHECKPOINT LOG-KEY     exit code 0: sound, 4: something was found, 1: not usable
"""
import base64, hashlib, json, pathlib, re, sys, uuid

STATE = "log.opened bundle.activated key.changed suspension.set suspension.lifted approval.decided review.recorded".split()
# What a kind cannot do without: strings, then numbers (n), integers (i), digests (d), lists (l), objects (o), booleans (b).
TYPES = {"": str, "n": int, "i": int, "d": str, "l": list, "o": dict, "b": bool}
MADE = " decision.bundle:d decision.state:n proof.kind proof.issuer proof.at:n proof.clause:n proof.subject proof.digest:d"
MADE += " proof.issued_ms:i proof.exp_ms:i proof.use proof.actor"
FIELDS = {
    "alarm": "code state", "broker.stopped": "reason", "bundle.activated": "digest:d", "credential.ended": "how ended:l",
    "log.opened": "origin key reason", "checkpoint.anchored": "where size:n root:d", "suspension.lifted": "suspension:n reason",
    "broker.started": "version mode store durability schema:n clock.synchronised:b reads:o",
    "broker.heartbeat": "since_ms:i counts.issued:n counts.refused:n counts.unavailable:n clock.synchronised:b up_ms:n",
    "registry.changed": "type name change bundle:d", "statement.signed": "type key digest:d from_ms:i until_ms:i",
    "key.changed": "key use alg state origin public:d publish_from_ms:i sign_from_ms:i sign_until_ms:i publish_until_ms:i",
    "suspension.set": "selector:o reason revoked:n live:n", "credential.refused": "reason clause count:n first_ms:i" + MADE,
    "credential.issued": "identity.name identity.at:n task.name task.at:n target.name target.at:n asked:o granted.ttl_s:n"
    " credential.type credential.profile credential.key credential.alg credential.subject credential.iat_ms:i"
    " credential.nbf_ms:i credential.exp_ms:i credential.until_ms:i credential.tbs:d credential.reach" + MADE,
}
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

def opened(note, vkey):
    """Origin, size and root of a checkpoint (C2SP tlog-checkpoint in a signed-note) that `vkey` signed."""
    name, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key, validate=True)
    require(hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] == key_id, "the id of the log key is not its own")
    require(len(key) == 33 and key[0] == 1, "the log key is not for Ed25519")
    text, blank, lines = note.rpartition(b"\n\n")
    require(blank and lines.endswith(b"\n") and not re.search(rb"[\0-\x09\x0b-\x1f]", note), "the checkpoint is no note")
    by = [re.fullmatch("— ([^ +]+) ([A-Za-z0-9+/]+=*)", line) for line in lines.decode()[:-1].split("\n")]
    require(all(by), "the checkpoint has a line that is no signature")
    ours = [octets for octets in (base64.b64decode(it[2]) for it in by if it[1] == name) if octets[:4].hex() == key_id]
    origin, size, root = (text.decode().split("\n") + ["", ""])[:3]
    require(len(ours) == 1 and signs(key[1:], ours[0][4:], text + b"\n"), "the checkpoint is not signed once by the log key")
    good = origin == name and re.fullmatch("0|[1-9][0-9]*", size) and re.fullmatch("[A-Za-z0-9+/]{43}=", root)
    require(good, "the checkpoint is of another log, or of no size and root")
    return origin, int(size), root

def root_of(leaves):
    """RFC 6962, section 2.1: the left tree is the largest perfect one that is not the whole."""
    at = 1 << (len(leaves) - 1).bit_length() >> 1
    return hashlib.sha256(b"\1" + root_of(leaves[:at]) + root_of(leaves[at:])).digest() if len(leaves) > 1 else leaves[0]

def canonical(value):
    """RFC 8785, for what an entry may hold: anything else is refused."""
    if type(value) is dict:
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(json.dumps(name, ensure_ascii=False) + ":" + canonical(it) for name, it in members) + "}"
    if type(value) is list:
        return "[" + ",".join(map(canonical, value)) + "]"
    require(value is not None and value != "" and type(value) is not float, "holds a null, a float or an empty string")
    require(type(value) is not int or abs(value) < 2**53, "holds a number beyond 2^53 - 1")
    return json.dumps(value, ensure_ascii=False)

def read(octets):
    require(len(octets) <= 16 * 1024, "is longer than 16 KiB")
    entry = json.loads(octets.decode())
    require(type(entry) is dict and canonical(entry).encode() == octets, "is not in canonical form")
    fields = FIELDS.get(entry.get("kind"), "") if entry.get("v") == 1 else ""  # a later version is kept, not judged
    for field in ("v:n kind id time:i td broker " + ("by.proof:d " if "by" in entry else "") + fields).split():
        path, _, type_ = field.partition(":")
        found = entry
        for name in path.split("."):
            found = found.get(name) if type(found) is dict else None
        require(type(found) is TYPES[type_] and (type_ != "n" or found >= 0), f"has no `{path}` as its kind has it")
        require(type_ != "d" or DIGEST.fullmatch(found), f"has a `{path}` that is no digest")
    require(re.fullmatch("[0-9a-f-]{36}", entry["id"]) and uuid.UUID(entry["id"]).version == 7, "has no UUIDv7 as its id")
    return entry

class Log:
    """What entries say of each other, from the first to the last: a method for each kind that must fit others."""
    def __init__(self):
        self.found, self.size, self.first, self.time, self.state, self.bundle, self.started = [], 0, {}, 0, None, None, None
        self.declared, self.pending, self.keys, self.authors, self.proofs, self.alive = {}, [], {}, {}, {}, {}
        self.issued, self.open, self.released, self.void, self.clock = {}, {}, set(), set(), set()

    def add(self, octets):
        try:
            entry = read(octets)
            kind, time, self.first = entry["kind"], entry["time"], self.first or entry
            self.check(time >= self.time, "is earlier than an entry before it")
            self.check((self.size == 0) == (kind == "log.opened"), "opens the log a second time, or not at all")
            self.check(entry["td"] == self.first["td"], "is of another trust domain")
            # Before a bundle there is nobody, whoever is refused did not act, and declarations wait for their bundle.
            if self.bundle and kind not in ("registry.changed", "credential.refused") and not entry.get("bootstrap"):
                self.stands(entry, time)
            self.time, before = max(self.time, time), self.state
            self.state = self.size if kind in STATE else before
            if entry["v"] == 1:
                getattr(self, kind.replace(".", "_"), lambda _: None)(entry)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self.check(False, error if type(error) is ValueError else f"does not say what its kind says: {error!r}")
        self.size += 1

    def check(self, holds, text, index=None):
        if not holds:
            self.found.append((self.size if index is None else index, str(text)))

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
        own = proposer and proposer in map(self.authors.get, entry.get("decided", []))
        require(not own, "lets in what the same author proposed and decided")

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
        require(granted["ttl_s"] <= min(longest), "was granted for longer than asked and declared")
        require(exp - made["iat_ms"] <= granted["ttl_s"] * 1000 + 1000, "lives longer than granted")
        for what in ("audiences", "actions", "resources"):
            for it, ceiling in ((it, ceiling.get(what, [])) for it in granted.get(what, []) for ceiling in ceilings):
                below = what == "resources" and any(wide[-2:] == "/*" and it.startswith(wide[:-1]) for wide in ceiling)
                require(it in ceiling or below, f"was granted {what} beyond what was asked and declared")

    def credential_settled(self, entry):
        for of, digest, ms in [] if "log" in entry else entry.get("released", []):  # `log`: what another log issued
            require(of in self.issued and DIGEST.fullmatch(digest), f"releases entry {of}, which issued nothing")
            require(of not in self.void and ms >= self.issued[of][0], f"releases entry {of}: void, or not recorded yet")
            self.released.add(of)
        for of, _ in [] if "log" in entry else entry.get("void", []):
            require(of not in self.released, f"calls entry {of} void, which was released")
            require(self.open.pop(of, None) is not None, f"ends entry {of}, which issued nothing or had ended")
            self.void.add(of)

    def credential_ended(self, entry):
        expired = {"expired": 30_000, "revoked": -(2**53)}[entry["how"]]
        for of in () if "log" in entry else entry["ended"]:
            require(self.open.pop(of, None) is not None, f"ends entry {of}, which issued nothing or had ended")
            require(entry["time"] >= self.issued[of][1] + expired, f"calls entry {of} expired, which could be alive")
            require(entry.get("selector", {}).get("key", self.issued[of][2]) == self.issued[of][2], f"{of} has another key")
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
        last, self.alive[broker] = self.alive.get(broker, time), time
        declared = "previous" in entry or broker != entry["broker"] or entry.get("since_ms", time) <= last + 5000
        self.check(declared or time - last <= 120_000, f"broker {broker} was silent since {last}")
        self.started = time if entry["kind"] == "broker.started" else self.started
        self.alive.pop(broker if entry["kind"] == "broker.stopped" else None, None)

    broker_heartbeat = broker_stopped = broker_started

    def close(self):
        for broker, last in self.alive.items():
            self.check(self.time - last <= 120_000, f"broker {broker} fell silent at {last}")
        if not self.clock and (self.started is None or self.time >= self.started + 60_000):
            self.unended(self.time - 90_000, "is long past its end, and nothing ended it")
            lost = [key for key, it in self.keys.items() if it["state"] == "compromised" and it["time"] < self.time - 90_000]
            self.found += [(of, "lives, and its key is compromised") for of in self.open if self.issued[of][2] in lost]

def verify(entries, checkpoint, vkey):
    log, lines = Log(), pathlib.Path(entries).read_bytes().removesuffix(b"\n").split(b"\n")
    try:
        origin, size, root = opened(pathlib.Path(checkpoint).read_bytes(), vkey)
        require(len(lines) >= size, f"the checkpoint is of {size} entries, and there are {len(lines)}")
        leaves = [hashlib.sha256(b"\0" + line).digest() for line in lines[:size]]
        require(size and root_of(leaves) == base64.b64decode(root), "the entries do not lead to the checkpoint's root")
        list(map(log.add, lines))
        log.close()
        require(log.first.get("origin") == origin, "the checkpoint is of another log")
    except ValueError as error:
        log.check(False, error)
    return log.found

if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    findings = verify(*sys.argv[1:])
    print(*(f"entry {index}: {text}" for index, text in findings), f"{len(findings)} finding(s)", sep="\n")
    sys.exit(4 if findings else 0)
