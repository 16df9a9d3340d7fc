import ArgumentParser
import CSIMD
import Checkpoints
import KVQuantization
import Operators

/// `nibble backends`: which attention backend reads which cache, and why not.
struct BackendsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backends",
    abstract: "Print which attention backend reads which KV cache, and why not.",
    discussion: """
      --why takes a list of NAME=VALUE separated by commas: prefill, decode (backends or auto), kv, k, v, rope (recipes), \
      attention (gqa or mla), q_heads, kv_heads, head_dim, latent, rope_dim, page_size, drafts, device. Exit code 64 if it can't work.
      """)

  @Option(help: "cpu, cpu:avx2, cpu:portable, cuda:9.0, sm_90, ... (default: this machine's CPU).")
  var device: String?
  @Flag(help: "Print the page docs/attention-backends.md.")
  var markdown = false
  @Option(help: "What would have to work, e.g. prefill=cpu,decode=cuda,kv=nvfp4.")
  var why: String?
  @Option(help: "Model folder whose geometry --why is about.")
  var model: String?

  func run() throws {
    let registry = SupportRegistry.standard
    let device = try AttentionDevice(device ?? "cpu", defaultLevel: Self.activeLevel)
    if markdown {
      Console.write(registry.page)
    } else if let why {
      let question = try BackendQuestion(
        why, device: device, model: try model.map { try ModelConfiguration(directory: $0) })
      Console.write(try question.answer(registry))
    } else {
      Console.write(registry.accessTable + "\n\n" + registry.limitTable + "\n\n" + Self.summary(registry, device))
    }
  }

  private static var activeLevel: AttentionDevice.CPULevel {
    let name = String(cString: nb_level_name(nb_level_active()))
    return AttentionDevice.CPULevel.allCases.first { $0.name == name } ?? .portable
  }

  /// What `auto` takes on a device, recipe by recipe, for a common geometry.
  private static func summary(_ registry: SupportRegistry, _ device: AttentionDevice) -> String {
    var lines = ["auto on \(device), 32 query heads over 8 KV heads of 128:"]
    for recipe in KVRecipe.allCases {
      let subject = AttentionSubject(
        geometry: .mha(kvHeadCount: 8, headDimension: 128), queryHeadCount: 32, key: recipe, value: recipe,
        device: device)
      let answer: String
      do throws(SupportError) {
        let choice = try registry.resolve(subject)
        answer =
          "prefill \(choice.prefill) \(choice.prefillAccess[0]), decode \(choice.decode) \(choice.decodeAccess[0])"
      } catch { answer = "\(error)" }
      lines.append("  \(recipe.name.padded(to: 16)) \(answer)")
    }
    return lines.joined(separator: "\n") + "\n"
  }
}

/// The question of `--why`.
struct BackendQuestion {
  var prefill = "auto"
  var decode = "auto"
  var subject: AttentionSubject

  /// - Throws: `CommandFailure` for an unknown name or a value that is no number, `KVQuantizationError` for a recipe.
  init(_ text: String, device: AttentionDevice, model: ModelConfiguration?) throws {
    var values: [String: String] = [:]
    for pair in text.split(separator: ",") {
      guard let equals = pair.firstIndex(of: "=") else {
        throw CommandFailure(.usage, "expected NAME=VALUE in --why, found '\(pair)'")
      }
      let name = String(pair[..<equals])
      guard Self.names.contains(name) else {
        throw CommandFailure(
          .usage, "unknown name '\(name)' in --why; expected one of: \(Self.names.joined(separator: ", "))")
      }
      values[name] = String(pair[pair.index(after: equals)...])
    }
    func number(_ name: String, _ fallback: Int) throws -> Int {
      guard let text = values[name] else { return fallback }
      guard let number = Int(text), (0...1 << 30).contains(number) else {
        throw CommandFailure(.usage, "expected \(name) in --why to be a number from 0 to 2^30, found '\(text)'")
      }
      return number
    }
    let kind = values["attention"] ?? (model?.kvGeometry.isMLA == true || values["latent"] != nil ? "mla" : "gqa")
    guard kind == "gqa" || kind == "mla" else {
      throw CommandFailure(.usage, "expected attention in --why to be gqa or mla, found '\(kind)'")
    }
    let geometry: KVGeometry =
      kind == "mla"
      ? .mla(
        latentDimension: try number("latent", model?.mla?.kvLoraRank ?? 512),
        ropeDimension: try number("rope_dim", model?.mla?.qkRopeHeadDimension ?? 64))
      : .mha(
        kvHeadCount: try number("kv_heads", model?.kvHeadCount ?? 8),
        headDimension: try number("head_dim", model?.headDimension ?? 128))
    let recipe = values["kv"] ?? "nvfp4"
    subject = AttentionSubject(
      geometry: geometry, queryHeadCount: try number("q_heads", model?.queryHeadCount ?? (kind == "mla" ? 128 : 32)),
      key: try KVRecipe.named(values["k"] ?? recipe), value: try KVRecipe.named(values["v"] ?? recipe),
      rope: try KVRecipe.named(values["rope"] ?? "bf16"), pageSize: try number("page_size", 64),
      draftTokenCount: try number("drafts", 0),
      device: try values["device"].map { try AttentionDevice($0) } ?? device)
    prefill = values["prefill"] ?? "auto"
    decode = values["decode"] ?? "auto"
  }

  private static let names = [
    "prefill", "decode", "kv", "k", "v", "rope", "attention", "q_heads", "kv_heads", "head_dim", "latent", "rope_dim",
    "page_size", "drafts", "device",
  ]

  /// What would run, or every reason of both phases.
  /// - Throws: `CommandFailure` with the reasons.
  func answer(_ registry: SupportRegistry) throws -> String {
    var refusals: [String] = []
    for (phase, name) in [(AttentionPhase.prefill, prefill), (.decode, decode)] where name != "auto" {
      if case .refused(let reasons) = try registry.support(of: name, for: phase, subject) {
        refusals += reasons.map { "\(phase.rawValue) on \(name): \($0)" }
      }
    }
    if prefill != "auto", decode != "auto" {
      do throws(SupportError) { try registry.checkPair(prefill: prefill, decode: decode) } catch {
        refusals.append("\(error)")
      }
    }
    if !refusals.isEmpty {
      throw CommandFailure(.usage, "this can't work:\n" + refusals.map { "- \($0)" }.joined(separator: "\n"))
    }
    let choice = try registry.resolve(prefill: prefill, decode: decode, subject)
    let accesses = zip(subject.parts, zip(choice.prefillAccess, choice.decodeAccess)).map { part, access in
      "  \(part.name) in \(part.recipe.name): prefill \(access.0), decode \(access.1)"
    }
    return
      (["this works on \(subject.device):"] + choice.reasons.map { "  \($0)" } + accesses
      + choice.warnings.map { "  warning: \($0)" }).joined(separator: "\n") + "\n"
  }
}
