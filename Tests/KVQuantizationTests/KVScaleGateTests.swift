import KVQuantization
import Testing

@Suite struct KVScaleGateTests {
  enum Presence: CaseIterable { case none, both, someLayers, keysOnly }

  static func scales(
    _ presence: Presence, _ convention: KVScaleConvention?, key: Float = 0.06, value: Float = 0.12
  ) -> KVScaleSet? {
    if presence == .none { return nil }
    var layers: [Int: KVScaleSet.Layer] = [:]
    for layer in 0..<(presence == .someLayers ? 2 : 3) {
      layers[layer] = KVScaleSet.Layer(
        key: .init(name: "k_scale", value: key),
        value: presence == .keysOnly ? nil : .init(name: "v_scale", value: value))
    }
    return KVScaleSet(layers: layers, convention: convention, conventionReason: "test", source: "the test")
  }

  /// Recipe x convention x presence: what goes into encode and decode, and how many warnings go out.
  @Test(arguments: KVRecipe.allCases, [nil] + KVScaleConvention.allCases.map { Optional($0) })
  func table(recipe: KVRecipe, convention: KVScaleConvention?) throws {
    let gate = KVScaleGate(key: recipe, value: recipe, layerCount: 3)
    for presence in Presence.allCases {
      let scales = Self.scales(presence, convention)
      let expected = Self.expectation(recipe, convention, presence)
      guard let expected else {
        #expect(throws: KVQuantizationError.self) { try gate.resolve(scales) }
        continue
      }
      let found = try gate.resolve(scales)
      #expect(found.warnings.count == expected.warnings, "\(recipe) \(presence): \(found.warnings)")
      #expect(found.decisions.count == 6)
      for layer in 0..<3 {
        let factor = presence == .someLayers && layer == 2 ? nil : expected.factor
        #expect(abs(found.layers[layer].key - (factor.map { 0.06 * $0 } ?? 1)) <= 1e-6 * found.layers[layer].key)
        #expect(abs(found.layers[layer].value - (factor.map { 0.12 * $0 } ?? 1)) <= 1e-6 * found.layers[layer].value)
        // What is not changed at all stays equal in every bit.
        if factor == 1 { #expect(found.layers[layer] == DecodeScales(key: 0.06, value: 0.12)) }
      }
      let isNVFP4 = recipe == .nvfp4 || recipe == .nvfp4FourOverSix
      #expect(found.watchesBlockScales == (isNVFP4 && (presence == .none || presence == .someLayers)))
    }
  }

  /// The factor on a found scale (nil: the scale is not used) and the number of warnings; nil where the gate must refuse.
  static func expectation(
    _ recipe: KVRecipe, _ convention: KVScaleConvention?, _ presence: Presence
  ) -> (factor: Float?, warnings: Int)? {
    if presence == .none { return (nil, 0) }
    switch recipe {
    case .f32, .bf16, .fp4MXBlock16, .mxfp4: return (nil, 1)
    case .fp8E4M3:
      if presence == .keysOnly { return nil }
      let warnings = (presence == .someLayers ? 1 : 0) + (convention == nil ? 1 : 0)
      return ((convention ?? .fp8).divisor / 448, warnings)
    case .nvfp4, .nvfp4FourOverSix:
      guard presence != .keysOnly, let convention else { return nil }
      return (convention.divisor / 2688, presence == .someLayers ? 1 : 0)
    }
  }

  @Test func keysAndValuesDecideApart() throws {
    let found = try KVScaleGate(key: .nvfp4, value: .bf16, layerCount: 3).resolve(Self.scales(.both, .fp8))
    #expect(abs(found.layers[1].key - 0.01) < 1e-8 && found.layers[1].value == 1)
    #expect(found.decisions[0].action == .converted(from: .fp8, to: .nvfp4))
    #expect(found.decisions[1].action == .ignored(.bf16) && found.decisions[1].found == 0.12)
    #expect(found.warnings.count == 1 && found.warnings[0].contains("3 KV scales of values"))
    #expect(found.summary.contains("key: converted from amax/448 to amax/2688 (3 layers)"))
  }

  @Test func headroomMultipliesWhatIsUsed() throws {
    for recipe in KVRecipe.allCases {
      var scales = try #require(Self.scales(.both, .fp8))
      let gate = KVScaleGate(key: recipe, value: recipe, layerCount: 3)
      let tight = try gate.resolve(scales)
      scales.headroom = 2
      let roomy = try gate.resolve(scales)
      #expect(roomy.layers[0].key == tight.layers[0].key * (recipe.usesDecodeScale ? 2 : 1))
      let native = KVScaleConvention.native(to: recipe)
      #expect(
        roomy.decisions[0].action == (native.map { .converted(from: .fp8, to: $0, headroom: 2) } ?? .ignored(recipe)))
    }
  }

  @Test func ignoredScalesAreCountedWithTheirRange() throws {
    let found = try KVScaleGate(key: .bf16, value: .bf16, layerCount: 3).resolve(Self.scales(.both, nil))
    #expect(
      found.warnings == [
        "6 KV scales from the test (0.06 to 0.12) are ignored: a bf16 cache stores values without a scale"
      ])
    #expect(found.layers == [.one, .one, .one])
  }

  /// MLA caches one latent and one rotary key; both were calibrated as keys, and values need no scale.
  @Test func latentAndRotaryKeyTakeTheScaleOfKeys() throws {
    let both = try KVScaleGate(key: .fp8E4M3, value: .fp8E4M3, isMLA: true, layerCount: 3)
      .resolve(Self.scales(.both, .fp8))
    #expect(both.layers == Array(repeating: DecodeScales(key: 0.06, value: 0.06), count: 3))
    let latent = try KVScaleGate(key: .nvfp4, value: .bf16, isMLA: true, layerCount: 3)
      .resolve(Self.scales(.keysOnly, .fp8))
    #expect(abs(latent.layers[0].key - 0.01) < 1e-8 && latent.layers[0].value == 1)
    #expect(latent.decisions.map(\.side).prefix(2) == [.latent, .rope])
  }

  @Test func theUserSettlesWhatTheSourceLeavesOpen() throws {
    let open = KVScaleGate(key: .nvfp4, value: .nvfp4, layerCount: 3, assumedConvention: .nvfp4)
    #expect(try open.resolve(Self.scales(.both, nil)).layers[0] == DecodeScales(key: 0.06, value: 0.12))
    // What the source says stands, with a warning.
    let contradicted = try open.resolve(Self.scales(.both, .fp8))
    #expect(abs(contradicted.layers[0].key - 0.01) < 1e-8)
    #expect(contradicted.warnings.count == 1 && contradicted.warnings[0].contains("--kv-scale-convention amax/2688"))
  }

  @Test(arguments: [
    (Float(0), "is 0.0; expected a positive"), (-0.5, "is -0.5"), (.nan, "is nan"), (.infinity, "is inf"),
    (-.infinity, "is -inf"), (.leastNonzeroMagnitude, "is 1e-45"), (1e38, "is 1e+38"),
  ])
  func refusesScalesThatAreNone(value: Float, expected: String) throws {
    for recipe in KVRecipe.allCases {
      let gate = KVScaleGate(key: recipe, value: recipe, layerCount: 3)
      let scales = Self.scales(.both, .fp8, value: value)
      if recipe.usesDecodeScale {
        let error = #expect(throws: KVQuantizationError.self) { try gate.resolve(scales) }
        #expect(error?.description.contains(expected) == true, "\(error?.description ?? "")")
      } else {
        #expect(try gate.resolve(scales).layers == [.one, .one, .one])
      }
    }
  }

  @Test func refusesWhatDoesNotFit() throws {
    let gate = KVScaleGate(key: .fp8E4M3, value: .fp8E4M3, layerCount: 3)
    var scales = try #require(Self.scales(.both, .fp8))
    scales.layers[1]?.key?.elementCount = 128
    #expect(throws: KVQuantizationError.scaleNotPerTensor(name: "k_scale", layer: 1, elementCount: 128)) {
      try gate.resolve(scales)
    }
    scales = try #require(Self.scales(.both, .fp8))
    scales.layers[7] = scales.layers[0]
    #expect(throws: KVQuantizationError.scaleOfUnknownLayer(layer: 7, layerCount: 3)) { try gate.resolve(scales) }
    #expect(throws: KVQuantizationError.scaleOfOneSide(layer: 0, present: "k_scale")) {
      try gate.resolve(Self.scales(.keysOnly, .fp8))
    }
    #expect(throws: KVQuantizationError.conventionNotKnown(source: "the test", reason: "test")) {
      try KVScaleGate(key: .nvfp4, value: .nvfp4, layerCount: 3).resolve(Self.scales(.both, nil))
    }
  }

  @Test func conventionsAreNamed() throws {
    #expect(try KVScaleConvention.named("amax/448") == .fp8)
    #expect(try KVScaleConvention.named("nvfp4") == .nvfp4)
    #expect(throws: KVQuantizationError.unknownScaleConvention("amax/7")) { try KVScaleConvention.named("amax/7") }
    #expect(KVScaleConvention.fp8.convert(6, to: .nvfp4) == 1)
    #expect(KVScaleConvention.e2m1.convert(448, to: .nvfp4) == 1)
  }
}

@Suite struct ForeignRecipeTests {
  @Test(arguments: [
    ("turboquant", KVRecipe.nvfp4), ("q4_0", .nvfp4), ("int4_per_token_head", .nvfp4), ("Q8_0", .fp8E4M3),
    ("int8", .fp8E4M3), ("fp8_e5m2", .fp8E4M3), ("float16", .bf16), ("nvpf4", .nvfp4), ("bf-16", .bf16),
    ("fp4_mx_block_16", .fp4MXBlock16), ("turboquant_3bit", .nvfp4),
  ])
  func namesTheNearest(name: String, expected: KVRecipe) throws {
    #expect(KVRecipe.nearest(to: name) == expected)
    let error = #expect(throws: KVQuantizationError.self) { try KVRecipe.named(name) }
    #expect(
      error?.description.hasSuffix("try \(expected.name), the nearest to it") == true, "\(error?.description ?? "")")
  }

  @Test func staysSilentWhereNothingIsNear() {
    for name in ["", "zzzzzz", "none", String(repeating: "q", count: 10_000)] {
      #expect(KVRecipe.nearest(to: name) == nil)
    }
  }
}
