import KVQuantization

extension SupportRegistry {
  /// What ships with Nibble.
  public static let standard = SupportRegistry(rows: cpuRows + referenceRows + cudaRows)

  private static let fourBit: [KVRecipe] = [.nvfp4, .nvfp4FourOverSix, .fp4MXBlock16, .mxfp4]
  private static let layoutPages = SupportRow.Numbers.multiples(of: 16)

  /// Read into registers as they lie: numbers as numbers, codes by a table or a conversion.
  private static func inRegisters(
    from level: AttentionDevice.CPULevel = .portable, upTo groupSize: Int? = nil
  ) -> [SupportRow.Access] {
    [
      .init([.f32, .bf16], .plain, from: level, upTo: groupSize),
      .init([.fp8E4M3], .native, from: level, upTo: groupSize),
    ]
  }
  private static let tileOfFloats: [SupportRow.Access] = [.init(KVRecipe.allCases, .workspace("f32"))]

  /// CSIMD's kernels. Prefill and decode are two schedules of one arithmetic: from AVX2 on, keys and values are read as they lie;
  /// the portable kernels decode 4-bit codes, and what many query rows share, into a tile first. Of MLA's latent in other recipes
  /// a tile is decoded at every level, because it is read twice, as keys and as values.
  private static let cpuRows = AttentionPhase.allCases.flatMap { phase in
    let keysAndValues =
      [.init(fourBit, .native, from: .avx2)] + inRegisters(from: .avx2)
      + (phase == .decode ? inRegisters(upTo: 4) : []) + tileOfFloats
    return [
      cpuRow(phase, .gqa, access: keysAndValues, ropeAccess: []),
      cpuRow(
        phase, .mla, access: [.init(fourBit, .native, from: .avx2)] + tileOfFloats,
        ropeAccess: inRegisters() + tileOfFloats),
    ]
  }

  private static func cpuRow(
    _ phase: AttentionPhase, _ kind: SupportRow.Kind, access: [SupportRow.Access], ropeAccess: [SupportRow.Access]
  ) -> SupportRow {
    SupportRow(
      backend: "cpu", phase: phase, kind: kind, device: .cpu, access: access, ropeAccess: ropeAccess,
      dimensions: .multiples(of: 16), groupSizes: .any, pageSizes: layoutPages, draftTokens: .any,
      fallback: "reference")
  }

  /// The textbook: every row is decoded to floats first.
  private static let referenceRows = AttentionPhase.allCases.flatMap { phase in
    SupportRow.Kind.allCases.map { kind in
      SupportRow(
        backend: "reference", phase: phase, kind: kind, device: .cpu, access: tileOfFloats,
        ropeAccess: kind == .mla ? tileOfFloats : [], dimensions: .multiples(of: 2), groupSizes: .any,
        pageSizes: layoutPages, draftTokens: .any, fallback: "cpu")
    }
  }

  /// The decode kernels; drafts are verified by their variants for up to 8 new tokens a request. MLA's latent is decoded once for all
  /// heads, into halves in shared memory.
  private static let cudaRows = [
    SupportRow(
      backend: "cuda", phase: .decode, kind: .gqa, device: .cuda(minimum: 80),
      access: [.init([.bf16], .plain), .init([.fp8E4M3] + fourBit, .native)],
      dimensions: .oneOf([64, 96, 128, 192, 256]), groupSizes: .range(1...16), pageSizes: .oneOf([16, 32, 64, 128]),
      draftTokens: .range(1...7), fallback: "cpu"),
    SupportRow(
      backend: "cuda", phase: .decode, kind: .mla, device: .cuda(minimum: 80), access: halves, ropeAccess: halves,
      dimensions: .oneOf([512]), ropeDimensions: .oneOf([64]), groupSizes: .range(1...128),
      pageSizes: .oneOf([16, 32, 64, 128]), draftTokens: .range(1...7), fallback: "cpu"),
  ]

  private static let halves: [SupportRow.Access] = [
    .init([.bf16], .plain), .init([.fp8E4M3, .nvfp4, .nvfp4FourOverSix], .workspace("f16")),
    .init([.fp4MXBlock16, .mxfp4], .workspace("bf16")),
  ]
}
