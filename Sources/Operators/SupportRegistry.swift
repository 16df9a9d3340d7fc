import KVQuantization
import PagedCache

/// The table of what each attention backend does, and the one place that answers for it.
public struct SupportRegistry: Sendable {
  public let rows: [SupportRow]

  public init(rows: [SupportRow]) { self.rows = rows }

  /// Backends in the order of preference.
  public var backends: [String] {
    rows.reduce(into: []) { names, row in if !names.contains(row.backend) { names.append(row.backend) } }
  }

  /// Whether a backend does what is asked: how it reads each part of the cache, or all reasons why not.
  /// - Throws: `SupportError.unknownBackend`.
  public func support(
    of backend: String, for phase: AttentionPhase, _ subject: AttentionSubject
  ) throws(SupportError) -> SupportAnswer {
    guard backends.contains(backend) else { throw .unknownBackend(backend, known: backends) }
    let own = rows.filter { $0.backend == backend }
    let kind: SupportRow.Kind = subject.geometry.isMLA ? .mla : .gqa
    var reasons: [SupportReason] = []
    let exact = own.first { $0.phase == phase && $0.kind == kind }
    if exact == nil { reasons.append(missing(backend, phase, kind, own)) }
    // Without a row of its own the question is held against the nearest, so that every other obstacle is told as well.
    guard let row = exact ?? own.first(where: { $0.phase == phase }) ?? own.first(where: { $0.kind == kind }) else {
      return .refused(reasons)
    }
    reasons += deviceReasons(row, subject)
    let accesses = partReasons(row, subject, &reasons)
    reasons += shapeReasons(row, phase, subject)
    return reasons.isEmpty ? .supported(accesses) : .refused(reasons)
  }

  private func missing(
    _ backend: String, _ phase: AttentionPhase, _ kind: SupportRow.Kind, _ own: [SupportRow]
  ) -> SupportReason {
    let does = own.map { "\($0.phase.rawValue) of \($0.kind.rawValue)" }.joined(separator: ", ")
    let others = backends.filter { name in
      rows.contains { $0.backend == name && $0.phase == phase && $0.kind == kind }
    }
    return SupportReason(
      "\(phase.rawValue) of \(kind.rawValue) on \(backend)", expected: does,
      remedy: others.first.map { "--attention-backend \($0)" } ?? "another model")
  }

  private func deviceReasons(_ row: SupportRow, _ subject: AttentionSubject) -> [SupportReason] {
    switch (row.device, subject.device) {
    case (.cpu, .cpu): return []
    case (.cuda(let minimum), .cuda(let major, let minor)):
      if major * 10 + minor >= minimum { return [] }
      return [
        SupportReason(
          "compute capability \(major).\(minor)", expected: "at least \(minimum / 10).\(minimum % 10)",
          remedy: "--attention-backend \(row.fallback)")
      ]
    case (.cpu, .cuda):
      return [
        SupportReason(
          "a cache in GPU memory (\(subject.device))", expected: "the CPU",
          remedy: "--attention-backend cuda")
      ]
    case (.cuda, .cpu):
      return [
        SupportReason(
          "a cache in host memory (\(subject.device))", expected: "an NVIDIA GPU",
          remedy: "--attention-backend \(row.fallback)")
      ]
    }
  }

  /// Accesses of the parts; those of unsupported parts are missing, with a reason each.
  private func partReasons(
    _ row: SupportRow, _ subject: AttentionSubject, _ reasons: inout [SupportReason]
  ) -> [CacheAccess] {
    var accesses: [CacheAccess] = []
    for part in subject.parts {
      if let access = row.access(
        to: part.recipe, on: subject.device, groupSize: subject.groupSize, isRope: row.kind == .mla && part.isRope)
      {
        accesses.append(access)
      } else {
        let nearest = row.recipes.contains(.nvfp4) ? KVRecipe.nvfp4 : row.recipes.first ?? .bf16
        reasons.append(
          SupportReason(
            "\(part.name) in \(part.recipe.name)",
            expected: "one of \(row.recipes.map(\.name).joined(separator: ", "))",
            remedy: "\(part.option) \(nearest.name)")
        )
      }
      if (try? part.recipe.validate(dimension: part.dimension)) == nil {
        reasons.append(
          SupportReason(
            "\(part.name) of \(part.dimension) values in \(part.recipe.name)",
            expected: "a multiple of \(part.recipe.blockSize ?? 2)", remedy: "\(part.option) bf16"))
      }
      let dimensions = part.isRope ? row.ropeDimensions ?? row.dimensions : row.dimensions
      if !dimensions.contains(part.dimension) {
        reasons.append(
          SupportReason(
            "\(part.name) of \(part.dimension) values", expected: "a dimension of \(dimensions)",
            remedy: "--attention-backend \(row.fallback)"))
      }
    }
    return accesses
  }

  private func shapeReasons(
    _ row: SupportRow, _ phase: AttentionPhase, _ subject: AttentionSubject
  ) -> [SupportReason] {
    var reasons: [SupportReason] = []
    if !row.pageSizes.contains(subject.pageSize) {
      let nearest = row.pageSizes.nearest(to: subject.pageSize) ?? 64
      reasons.append(
        SupportReason(
          "pages of \(subject.pageSize) tokens", expected: "\(row.pageSizes)", remedy: "--page-size \(nearest)"))
    }
    if case .mha(let kvHeads, _) = subject.geometry,
      kvHeads <= 0 || subject.queryHeadCount <= 0 || subject.queryHeadCount % kvHeads != 0
    {
      reasons.append(
        SupportReason(
          "\(subject.queryHeadCount) query heads over \(kvHeads) KV heads", expected: "a whole number of them each",
          remedy: "another checkpoint"))
    } else if !row.groupSizes.contains(subject.groupSize) {
      reasons.append(
        SupportReason(
          "\(subject.groupSize) query heads a KV head", expected: "\(row.groupSizes)",
          remedy: "--attention-backend \(row.fallback)"))
    }
    let drafts = subject.draftTokenCount
    if phase == .decode, drafts != 0, !row.draftTokens.contains(drafts) {
      let nearest = row.draftTokens.nearest(to: drafts) ?? 0
      reasons.append(
        SupportReason(
          "\(drafts) draft tokens a step", expected: "\(row.draftTokens)",
          remedy: "--speculative-num-draft-tokens \(nearest)"))
    }
    return reasons
  }
}
