import KVQuantization
import Operators
import TestSupport
import Testing

@Suite struct SupportRegistryTests {
  let registry = SupportRegistry.standard

  static func subject(
    _ recipe: KVRecipe = .nvfp4, geometry: KVGeometry = .mha(kvHeadCount: 8, headDimension: 128), queryHeads: Int = 32,
    pageSize: Int = 64, drafts: Int = 0, device: AttentionDevice = .cpu(.avx512)
  ) -> AttentionSubject {
    AttentionSubject(
      geometry: geometry, queryHeadCount: queryHeads, key: recipe, value: recipe, pageSize: pageSize,
      draftTokenCount: drafts, device: device)
  }

  @Test func answersWithTheAccess() throws {
    #expect(try registry.support(of: "cpu", for: .decode, Self.subject()) == .supported([.native, .native]))
    #expect(
      try registry.support(of: "cpu", for: .prefill, Self.subject(device: .cpu(.portable)))
        == .supported([.workspace("f32"), .workspace("f32")]))
    #expect(try registry.support(of: "cpu", for: .decode, Self.subject(.bf16)) == .supported([.plain, .plain]))
    #expect(
      try registry.support(of: "cuda", for: .decode, Self.subject(device: .cuda(major: 9, minor: 0)))
        == .supported([.native, .native]))
    let latent = KVGeometry.mla(latentDimension: 512, ropeDimension: 64)
    #expect(
      try registry.support(of: "cpu", for: .decode, Self.subject(geometry: latent, queryHeads: 128))
        == .supported([.native, .plain]))
  }

  @Test func refusesWithEveryReason() throws {
    let subject = AttentionSubject(
      geometry: .mha(kvHeadCount: 2, headDimension: 80), queryHeadCount: 64, key: .f32, value: .mxfp4, pageSize: 48,
      draftTokenCount: 12, device: .cuda(major: 7, minor: 5))
    let reasons = try registry.support(of: "cuda", for: .decode, subject).reasons
    #expect(
      reasons.map(\.description) == [
        "compute capability 7.5: expected at least 8.0; try --attention-backend cpu",
        """
        keys in f32: expected one of bf16, fp8_e4m3, nvfp4, nvfp4_4over6, fp4_mx_block16, mxfp4; try --kv-cache-dtype-k nvfp4
        """,
        "keys of 80 values: expected a dimension of 64, 96, 128, 192, 256; try --attention-backend cpu",
        "values of 80 values in mxfp4: expected a multiple of 32; try --kv-cache-dtype-v bf16",
        "values of 80 values: expected a dimension of 64, 96, 128, 192, 256; try --attention-backend cpu",
        "pages of 48 tokens: expected 16, 32, 64, 128; try --page-size 32",
        "32 query heads a KV head: expected 1 to 16; try --attention-backend cpu",
        "12 draft tokens a step: expected 1 to 7; try --speculative-num-draft-tokens 7",
      ])
  }

  @Test func aMissingRowIsAReasonBesideTheOthers() throws {
    let latent = KVGeometry.mla(latentDimension: 512, ropeDimension: 64)
    let reasons = try registry.support(of: "cuda", for: .prefill, Self.subject(.f32, geometry: latent, queryHeads: 129))
      .reasons
    #expect(
      reasons.first?.description.hasPrefix("prefill of MLA on cuda: expected decode of GQA, decode of MLA") == true)
    #expect(reasons.dropFirst(2).map(\.offence) == ["the latent in f32", "129 query heads a KV head"])
    let prefill = try registry.support(of: "cuda", for: .prefill, Self.subject(device: .cuda(major: 9, minor: 0)))
      .reasons
    #expect(prefill.map(\.offence) == ["prefill of GQA on cuda"])
  }

  @Test func latentAttentionOnAGPUDecodesIntoHalves() throws {
    let subject = Self.subject(
      geometry: .mla(latentDimension: 512, ropeDimension: 64), queryHeads: 128, device: .cuda(major: 9, minor: 0))
    #expect(try registry.support(of: "cuda", for: .decode, subject) == .supported([.workspace("f16"), .plain]))
    let swapped = Self.subject(
      geometry: .mla(latentDimension: 64, ropeDimension: 512), queryHeads: 16, device: .cuda(major: 9, minor: 0))
    #expect(
      try registry.support(of: "cuda", for: .decode, swapped).reasons.map(\.description) == [
        "the latent of 64 values: expected a dimension of 512; try --attention-backend cpu",
        "the rotary key of 512 values: expected a dimension of 64; try --attention-backend cpu",
      ])
  }

  @Test func unknownNamesAreAnsweredWithTheKnown() {
    #expect(throws: SupportError.unknownBackend("fa3", known: ["cpu", "reference", "cuda"])) {
      try registry.support(of: "fa3", for: .decode, Self.subject())
    }
    #expect(throws: SupportError.unknownDevice("tpu")) { try AttentionDevice("tpu") }
  }

  @Test func autoTakesTheFirstThatCanForBothPhases() throws {
    let choice = try registry.resolve(Self.subject())
    #expect(choice.prefill == "cpu" && choice.decode == "cpu" && choice.warnings.isEmpty && choice.reasons.count == 2)
    // The fast kernels want multiples of 16; the reference takes any even dimension.
    let odd = try registry.resolve(Self.subject(.bf16, geometry: .mha(kvHeadCount: 8, headDimension: 72)))
    #expect(odd.prefill == "reference" && odd.decode == "reference")
    #expect(odd.reasons[0].contains("cpu can't: keys of 72 values"))
    #expect(try registry.resolve(decode: "reference", Self.subject()).prefill == "reference")
  }

  @Test func pairsAreChecked() throws {
    let mixed = try registry.resolve(prefill: "cpu", decode: "reference", Self.subject())
    #expect(mixed.warnings.count == 1 && mixed.warnings[0].contains("round differently"))
    for (prefill, decode) in [("cpu", "cuda"), ("cuda", "reference")] {
      #expect(throws: SupportError.self) { try registry.checkPair(prefill: prefill, decode: decode) }
    }
    #expect(throws: SupportError.self) { try registry.resolve(prefill: "cpu", decode: "cuda", Self.subject()) }
    #expect(throws: Never.self) { try registry.checkPair(prefill: "cuda", decode: "cuda") }
  }

  /// The page's table of pairs says what `resolve` does with each.
  @Test func everyPairIsAsThePageSays() throws {
    let cells = registry.pairTable.split(separator: "\n").dropFirst(2).map { line in
      line.split(separator: "|").dropFirst().map { $0.drop { $0 == " " } }
    }
    var counts: [Substring: Int] = [:]
    for (row, prefill) in registry.backends.enumerated() {
      for (column, decode) in registry.backends.enumerated() {
        let cell = cells[row][column]
        counts[cell.prefix(3), default: 0] += 1
        let device: AttentionDevice = decode == "cuda" ? .cuda(major: 9, minor: 0) : .cpu(.avx512)
        let choice = try? registry.resolve(prefill: prefill, decode: decode, Self.subject(device: device))
        switch cell.first {
        case "o": #expect(choice?.warnings.isEmpty == true, "\(prefill), \(decode)")
        case "w": #expect(choice?.warnings.count == 1, "\(prefill), \(decode)")
        default: #expect(choice == nil, "\(prefill), \(decode)")
        }
      }
    }
    #expect(counts == ["one": 2, "wit": 2, "- (": 5])
  }

  /// Whatever is asked, the answer is an access for each part or reasons that say what to change.
  @Test func everyCellHasAnAnswer() throws {
    let devices: [AttentionDevice] = AttentionDevice.CPULevel.allCases.map { .cpu($0) } + [.cuda(major: 9, minor: 0)]
    let geometries: [(KVGeometry, Int)] = [
      (.mha(kvHeadCount: 8, headDimension: 128), 32), (.mha(kvHeadCount: 1, headDimension: 80), 40),
      (.mha(kvHeadCount: 0, headDimension: 0), 0), (.mla(latentDimension: 512, ropeDimension: 64), 128),
      (.mla(latentDimension: 100, ropeDimension: 30), 3),
    ]
    var (supported, refused) = (0, 0)
    for backend in registry.backends {
      for phase in AttentionPhase.allCases {
        for (geometry, heads) in geometries {
          for recipe in KVRecipe.allCases {
            for device in devices {
              for pageSize in [0, 16, 64, 100] {
                let subject = Self.subject(
                  recipe, geometry: geometry, queryHeads: heads, pageSize: pageSize, drafts: 3, device: device)
                switch try registry.support(of: backend, for: phase, subject) {
                case .supported(let access):
                  #expect(access.count == 2)
                  supported += 1
                case .refused(let reasons):
                  #expect(!reasons.isEmpty && reasons.allSatisfy { !$0.remedy.isEmpty })
                  refused += 1
                }
              }
            }
          }
        }
      }
    }
    #expect(supported > 300 && refused > 1000, "\(supported), \(refused)")
  }

  @Test(arguments: [
    ("cpu", AttentionDevice.cpu(.avx512)), ("cpu:portable", .cpu(.portable)), ("cuda", .cuda(major: 9, minor: 0)),
    ("cuda:12.0", .cuda(major: 12, minor: 0)), ("sm_90a", .cuda(major: 9, minor: 0)),
    ("SM100", .cuda(major: 10, minor: 0)),
  ])
  func readsDevices(text: String, expected: AttentionDevice) throws {
    #expect(try AttentionDevice(text) == expected)
  }

  @Test(arguments: ["", "cpu:", "cpu:avx1024", "cuda:", "cuda:9", "cuda:-1.0", "sm_", "sm_9", "gpu"])
  func refusesOtherDevices(text: String) {
    #expect(throws: SupportError.unknownDevice(text)) { try AttentionDevice(text) }
  }

  /// `nibble backends --markdown > docs/attention-backends.md` brings the page up to date.
  @Test func thePageIsUpToDate() throws {
    #expect(try readText("\(Repository.path)/docs/attention-backends.md") == registry.page)
  }
}
