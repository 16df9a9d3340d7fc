import KVQuantization

extension SupportRegistry {
  /// docs/attention-backends.md.
  public var page: String {
    """
    # Attention backends

    Printed by `nibble backends --markdown` from the support registry, the table that also rules start-up, error messages and
    tests; don't edit it by hand. How a backend reads what a recipe stored:

    - `plain`: consumed as stored;
    - `native`: codes are decoded in registers;
    - `workspace(T)`: decoded into a bounded scratch tile or buffer of T first;
    - `-`: refused, with the reason and the remedy (`nibble backends --why ...`).

    Keys and values (MLA: the latent and the rotary key) may have different recipes. `auto` takes the first backend below that
    does what is asked, the same for prefill and decode where possible.

    ## Access by recipe

    \(accessTable)

    ## Limits

    \(limitTable)

    ## Pairs

    Prefill and decode may run on different backends (`--prefill-attention-backend`, `--decode-attention-backend`) where both work
    in the same memory; they round differently, so the promise that an answer doesn't depend on chunk sizes holds only where
    they are the same.

    \(pairTable)

    """
  }

  /// Which backends go together, whatever the cache.
  public var pairTable: String {
    var lines = [
      "| prefill | " + backends.map { "decode on `\($0)`" }.joined(separator: " | ") + " |",
      "|---|" + String(repeating: "---|", count: backends.count),
    ]
    for prefill in backends {
      let cells = backends.map { decode in
        if !does(prefill, .prefill) { return "- (`\(prefill)` has no prefill)" }
        if !does(decode, .decode) { return "- (`\(decode)` has no decode)" }
        do throws(SupportError) { try checkPair(prefill: prefill, decode: decode) } catch {
          return "- (\(error.offence))"
        }
        return prefill == decode ? "one arithmetic" : "with a warning"
      }
      lines.append("| on `\(prefill)` | \(cells.joined(separator: " | ")) |")
    }
    return lines.joined(separator: "\n")
  }

  private func does(_ backend: String, _ phase: AttentionPhase) -> Bool {
    rows.contains { $0.backend == backend && $0.phase == phase }
  }

  public var accessTable: String {
    var lines = [
      "| backend | phase | attention | on | " + KVRecipe.allCases.map { "`\($0.name)`" }.joined(separator: " | ")
        + " |",
      "|---|---|---|---|" + String(repeating: "---|", count: KVRecipe.allCases.count),
    ]
    for backend in backends {
      for phase in AttentionPhase.allCases {
        for kind in SupportRow.Kind.allCases {
          let row = rows.first { $0.backend == backend && $0.phase == phase && $0.kind == kind }
          for part in kind == .gqa ? ["GQA"] : ["MLA latent", "MLA rotary key"] {
            lines += accessLines("| `\(backend)` | \(phase.rawValue) | \(part) |", row, isRope: part.hasSuffix("key"))
          }
        }
      }
    }
    return lines.joined(separator: "\n")
  }

  /// One line for each kind of device that differs in access.
  private func accessLines(_ start: String, _ row: SupportRow?, isRope: Bool) -> [String] {
    guard let row else {
      return ["\(start) - | " + KVRecipe.allCases.map { _ in "-" }.joined(separator: " | ") + " |"]
    }
    func cells(_ device: AttentionDevice) -> String {
      KVRecipe.allCases.map { row.accessText(to: $0, on: device, isRope: isRope) }
        .joined(separator: " | ")
    }
    guard case .cpu = row.device else { return ["\(start) GPU | \(cells(.cuda(major: 9, minor: 0))) |"] }
    // Neighbouring levels that read alike share a line.
    var lines: [(levels: [String], cells: String)] = []
    for level in AttentionDevice.CPULevel.allCases.reversed() {
      let cells = cells(.cpu(level))
      if lines.last?.cells == cells {
        lines[lines.count - 1].levels.append(level.title)
      } else {
        lines.append(([level.title], cells))
      }
    }
    return lines.map { line in
      let levels =
        line.levels.count == AttentionDevice.CPULevel.allCases.count ? "any CPU" : line.levels.joined(separator: ", ")
      return "\(start) \(levels) | \(line.cells) |"
    }
  }

  public var limitTable: String {
    var lines = [
      "| backend | phase | attention | device | head dimensions | query heads a KV head | page sizes | draft tokens |",
      "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows {
      let device =
        switch row.device {
        case .cpu: "CPU"
        case .cuda(let minimum): "GPU from sm_\(minimum)"
        }
      let dimensions = "\(row.dimensions)" + (row.ropeDimensions.map { ", rotary key \($0)" } ?? "")
      let drafts = row.phase == .decode ? row.draftTokens.description : "-"
      lines.append(
        "| `\(row.backend)` | \(row.phase.rawValue) | \(row.kind.rawValue) | \(device) | \(dimensions) | "
          + "\(row.groupSizes) | \(row.pageSizes) | \(drafts) |")
    }
    return lines.joined(separator: "\n")
  }
}

extension AttentionDevice.CPULevel {
  /// As people write it.
  fileprivate var title: String {
    switch self {
    case .portable: "portable"
    case .avx2: "AVX2"
    case .avx512: "AVX-512"
    }
  }
}

extension SupportError {
  /// What is in the way of a pair.
  fileprivate var offence: String {
    if case .mismatchedPair(_, _, let reason) = self { reason.offence } else { description }
  }
}
