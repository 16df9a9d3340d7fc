import Engine
import JSON
import TextCodec

/// A problem of a file with one {"prompt": ..., "answer": ...} a line; the number after #### is what a model answers.
struct WordProblem {
  let prompt: [Int32]
  let answer: String

  /// Problems as a user's message in the model's chat template, or as they are where there is none.
  static func read(_ path: String, limit: Int?, plan: RunPlan) throws -> [WordProblem] {
    let lines = try Console.readFile(path).split(separator: "\n").prefix(limit ?? .max)
    guard !lines.isEmpty else { throw CommandFailure(.data, "'\(path)' is empty; expected one JSON object a line") }
    let template = try plan.chatTemplate()
    return try lines.map { line in
      let object = try JSONValue.parse(bytes: Array(line.utf8))
      guard let prompt = object["prompt"]?.stringValue, let answer = object["answer"]?.stringValue else {
        throw CommandFailure(.data, "'\(path)' has a line without 'prompt' or 'answer'; expected both in every line")
      }
      let text = try template?.render(
        messages: [ChatMessage(role: "user", content: prompt)], addGenerationPrompt: true)
      return WordProblem(
        prompt: plan.tokenizer.encode(text ?? prompt, addSpecialTokens: text == nil, allowSpecial: true),
        answer: answer)
    }
  }

  /// What follows the last #### of an answer.
  static func result(_ text: String) -> String {
    guard let mark = text.ranges(of: "####").last else { return "" }
    return String(text[mark.upperBound...].drop { $0 == " " }.prefix { $0 != "\n" && $0 != " " })
  }
}
